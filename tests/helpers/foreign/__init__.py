"""Methods from outside, small but real, that the method interface has to carry."""
