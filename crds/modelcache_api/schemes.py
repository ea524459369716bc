"""Kinds of sources: their schemes, and the keys of the Secrets that open them."""

#: Schemes of `source.uri` that have an origin plug-in.
SCHEMES = ("s3", "gs", "abfs", "abfss", "az", "hf", "https", "http")
#: Keys of the Secret that `credentials.secretRef` names, by kind of source. Which of them go
#: together is in docs/SOURCES.md.
SECRET_KEYS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "gs": ("GOOGLE_CREDENTIALS",),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
    ),
    "hf": ("HF_TOKEN",),
    "https": ("HTTP_BEARER_TOKEN", "HTTP_USERNAME", "HTTP_PASSWORD"),
}
