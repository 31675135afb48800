from dream_cad.models.base import Model3D
from dream_cad.models.factory import register_model

@register_model("custom_model")
class CustomModel(Model3D):
    def __init__(self, **kwargs):
        super().__init__("custom_model", **kwargs)
    
    def generate_from_text(self, prompt, **kwargs):
        # Implementation
        pass
    
    def generate_from_image(self, image, **kwargs):
        # Implementation
        pass

# Use custom model
model = ModelFactory.create_model("custom_model")
