"""quorumlog client"""
