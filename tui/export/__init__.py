"""An adapter leaving for other programs: formats, progress, proof."""
