"""How far a dream can be trusted: probes, fidelity by horizon, closed loop, and the world card."""
