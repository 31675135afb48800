from dream_cad import ModelFactory

# Create model
model = ModelFactory.create_model("triposr")

# Generate
result = model.generate_from_text("a ceramic vase")

# Save
result.save("vase.glb")
