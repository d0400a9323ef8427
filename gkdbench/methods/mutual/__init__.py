"""Models that are trained together and teach each other, without a trained teacher."""
