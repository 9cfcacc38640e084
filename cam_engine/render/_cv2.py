"""The one ``import cv2`` of the package, with an error that names the remedy."""

try:
    import cv2
except ImportError as error:
    raise ImportError(
        f"cam_engine.render draws with OpenCV, and `import cv2` failed: {error}. "
        "On a machine without libGL the headless build is the same module: "
        "pip uninstall opencv-python && pip install opencv-python-headless"
    ) from error

__all__ = ["cv2"]
