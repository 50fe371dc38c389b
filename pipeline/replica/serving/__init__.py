"""The replica as a service: see README.md. ``protocol`` and the client need numpy alone."""
