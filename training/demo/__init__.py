"""The drawn set: portraits made with code, photographed or forged, so that every stage runs without data of your own."""
