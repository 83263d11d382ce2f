"""neuralsim.training"""
