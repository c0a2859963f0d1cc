"""Language models, COMET and servers, as prepare and eval use them."""
