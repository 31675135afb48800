from dream_cad.exceptions import InsufficientVRAMError

try:
    model = ModelFactory.create_model("mvdream")
    result = model.generate_from_text("complex scene")
except InsufficientVRAMError as e:
    print(f"Not enough VRAM: {e}")
    # Fall back to smaller model
    model = ModelFactory.create_model("triposr")
