"""The loss around and between the models of a zoo: barriers, curves, regions and planes, many at a time."""
