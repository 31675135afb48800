"""What a quality assessment looks at, one file an aspect; functions on arrays."""
