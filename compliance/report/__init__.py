"""The report that people read, as a page (HTML) and on paper (PDF), and the matrix of who does what.

Reading order: `content` (what it tells, the same for both), `drawing` and `charts` (shapes that both can draw), `pictures` (what is
drawn of a period), `page` with its templates (HTML), `metrics`, `tags`, `pdf` and `paper` (a small writer of PDF, and
how it is read aloud), `printed` (the report on paper), `matrix` (CSV and HTML).

The writer of PDF is ours (docs/adr/0008): the libraries for it bring decoders of images and fonts along. Nothing here knows
the time or draws lots: the same content gives the same bytes.
"""
