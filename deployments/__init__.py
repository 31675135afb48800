"""The Ray Serve application: gateway, router, models and the stages around them."""
