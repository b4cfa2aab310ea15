"""What a person opens in a browser: `kit` (the style and the parts of every page) → `picture` → `plots`."""
