"""Drawing of detections, attention and curves."""
