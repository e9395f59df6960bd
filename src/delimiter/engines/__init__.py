"""The engines that come with Delimiter, one module or package for each technology, imported when first opened."""
