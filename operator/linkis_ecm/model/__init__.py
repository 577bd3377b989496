"""The words of the domain: states, reasons, resources, formats. Imports nothing else of the project."""
