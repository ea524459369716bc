"""The contract between the parts: names, objects, manifests, formats and messages. No I/O."""
