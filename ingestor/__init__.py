"""ingestor"""
