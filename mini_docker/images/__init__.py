# Exported from notebooks/12_images.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12_images.ipynb#images-package
"""Images: blobs named by their digests, and the layers unpacked from them."""
