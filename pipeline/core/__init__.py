"""What every part rests on: errors, settings, the frame of a stage, stamps, samples."""
