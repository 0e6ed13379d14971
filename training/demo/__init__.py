"""The drawn set: portraits made with code, photographed or forged, so that the whole road runs with no data of your own."""
