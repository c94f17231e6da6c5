"""Classes, detections and masks of an image, and conversions between their forms."""
