"""Training of Orb-v3: labelled structures, losses of the published models, and one loop."""
