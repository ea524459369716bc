"""The store on disk: blobs, journals, revisions, index."""
