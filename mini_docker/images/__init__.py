"""Images: blobs named by their digests, and the layers unpacked from them."""
