"""Tools that make the container image; no part of the product.

Reading order: `lock` (lists of digests), `fetch` (collects by them), `base` (the file system below everything), `build` (twice, and
compare), `evidence` (SBOM and provenance).
"""
