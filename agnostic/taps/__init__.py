"""What a model's layers put out: records, and the verbs that make them."""
