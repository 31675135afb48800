from dream_cad import ModelFactory
from dream_cad.benchmark import QualityAssessor

# Generate
model = ModelFactory.create_model("stable-fast-3d")
result = model.generate_from_text("game asset sword")
path = result.save("sword.glb")

# Assess
assessor = QualityAssessor()
metrics = assessor.assess_mesh_file(Path(path))

print(f"Polycount: {metrics.face_count}")
print(f"Game ready: {metrics.game_ready_score}/100")
print(f"UV quality: {metrics.uv_coverage}%")
