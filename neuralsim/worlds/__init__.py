"""neuralsim.worlds"""
