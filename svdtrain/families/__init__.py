"""One file per kind of video model, behind one protocol."""
