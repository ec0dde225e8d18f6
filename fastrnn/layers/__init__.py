"""What users call: validate, document, dispatch to a backend."""
