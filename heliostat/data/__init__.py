"""What the model eats: versioned tables, features, joins in time, and the order of batches."""
