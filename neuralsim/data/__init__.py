"""neuralsim.data"""
