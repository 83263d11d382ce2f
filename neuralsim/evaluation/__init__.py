"""neuralsim.evaluation"""
