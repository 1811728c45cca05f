"""A registry for a room without internet, with the lab's images in it."""
