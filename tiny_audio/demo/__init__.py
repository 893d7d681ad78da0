"""The demo: a page in the browser that hears the microphone and files; the same app here and in a Space."""
