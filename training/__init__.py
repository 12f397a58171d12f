"""Everything that makes the bundled model `sa2va-tiny`: scenes, wording, training, evaluation."""
