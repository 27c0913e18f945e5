"""Run by a Python that has sentence-transformers: JSON texts on stdin, their vectors as .npy on stdout.

Needs nothing of earshot. The one argument is the model's folder. All texts go through in one padded batch.
"""

import json
import sys

import numpy as np
from sentence_transformers import SentenceTransformer

texts = json.load(sys.stdin)
model = SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(texts, batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False)
np.save(sys.stdout.buffer, vectors)
