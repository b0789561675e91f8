"""Other projects' checkpoints as models: torchvision, timm, d-li14, Hugging Face, Keras, ONNX (docs/importing.md).

A reader of a container (`torch_file`, `keras_file`) gives names and arrays; `recognise` says by them which network
of which project they are; `convert` makes them the weights of that network's graph. Nothing in a file is executed.
"""
