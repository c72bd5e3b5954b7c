"""The data contracts as data: manifest DDL with numbered migrations, shard layout and recipe as JSON Schema."""
