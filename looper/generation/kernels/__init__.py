"""The decode step as eleven GPU kernels a layer, in Triton, for cards of capability 8.0 and up.

`programs` holds the kernels and alone needs Triton; `operations` what each of them does, as a table of functions, with
ATen's own as the reference; `launches` that table in kernels; `fused_step` the step made of such a table; `trial`
compares the two on the card and model at hand; `choice` takes what has proven right and faster.
"""
