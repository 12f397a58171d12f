"""What is written: pictures, frames, videos."""
