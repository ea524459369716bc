"""What can go wrong in the plugin itself, beside the errors of the contract.

Like those, a class says what the caller should do; `rpc` alone knows the gRPC codes.
"""

from modelcache_api.errors import InvalidRequestError, ModelCacheError, UnavailableError
from modelcache_api.reasons import Reason


class PreconditionError(ModelCacheError):
    """The cluster or the node is not set up for this call. Its administrator must act."""

    reason = Reason.INVALID_REQUEST


class VolumeBusyError(ModelCacheError):
    """Another call works on the same volume. Ask again when it is done."""

    retryable = True


class NotReadyError(ModelCacheError):
    """The model is not yet complete on this node. Ask again: the next call waits on."""

    reason = Reason.FETCHING
    retryable = True


class AgentAwayError(UnavailableError):
    """The agent of this node does not answer, or not so that we understand it. Ask again."""


class AlreadyPublishedError(ModelCacheError):
    """The target path holds another volume than the one asked for. Unpublish it first."""

    reason = Reason.INVALID_REQUEST


class VolumeNotFoundError(ModelCacheError):
    """No volume of ours is published at that path."""

    reason = Reason.INVALID_REQUEST


class UnknownRevisionError(InvalidRequestError):
    """The ModelCache has no such revision. The user must name another one."""
