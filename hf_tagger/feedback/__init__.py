"""What people say of tags: verdicts kept, compared, and brought back into the model."""
