"""What one does with a trained network or a folder of photographs: predict, doctor, export."""
