"""Times of graphc beside other libraries on the same work.  ``python -m bench [names]``; see docs/performance.md."""
