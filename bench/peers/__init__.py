"""Other stores, driven with our batches and asked our questions.

`base.py` says what a peer must do, `choose.py` how a user names one; each of the others knows one store:
its schema, its wire format, the questions in its language, and how it says what it cost. A server that
the user names is not ours: nothing in it is dropped but what this run made, and it is never stopped.
"""
