"""Small and fast: export to ONNX and int8."""
